"""What a processor returns for many samples is told apart by its layout."""

from __future__ import annotations

import torch

from adapt_inf.models.encoding import split


def test_a_row_a_picture() -> None:
    pixels = torch.rand(3, 3, 4, 4)
    rows = split({"input_ids": [[1], [2], [3]], "pixel_values": pixels}, [2, 0, 1])
    assert rows is not None
    assert torch.equal(rows[0]["pixel_values"], pixels[:2])
    assert rows[1] == {}
    assert torch.equal(rows[2]["pixel_values"], pixels[2:])


def test_patches_are_split_by_their_grids() -> None:
    """The layout of Qwen2-VL: pixel_values holds patches, image_grid_thw says how many are whose."""
    grid = torch.tensor([[1, 2, 2], [1, 2, 4], [1, 4, 4]])
    patches = torch.arange(28 * 3).reshape(28, 3)
    output = {"input_ids": [[1], [2], [3]], "pixel_values": patches, "image_grid_thw": grid}
    rows = split(output, [2, 0, 1])
    assert rows is not None
    assert torch.equal(rows[0]["pixel_values"], patches[:12])
    assert rows[1] == {}
    assert torch.equal(rows[2]["image_grid_thw"], grid[2:])


def test_layouts_that_a_call_per_sample_makes_plain() -> None:
    """More tiles than pictures; tiles in a dimension of their own; a number per sample."""
    for extras in (
        {"pixel_values": torch.rand(5, 3, 4, 4)},
        {"pixel_values": torch.rand(2, 4, 3, 4, 4)},
        {"pixel_values": torch.rand(2, 3, 4, 4), "batch_num_images": torch.ones(2)},
    ):
        assert split({"input_ids": [[1], [2]], **extras}, [1, 1]) is None
