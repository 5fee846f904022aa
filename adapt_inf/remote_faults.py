"""What is wrong with a store elsewhere, in our words: what S3 and its like raise, whichever library speaks to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def of_a_cloud(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "aiohttp", "s3fs", "dvc_objects")


def in_our_words(found: Sequence[BaseException]) -> tuple[str, str]:
    names = {type(each).__name__ for each in found}
    first = next((str(each).strip().rstrip(".") for each in found if str(each).strip()), type(found[0]).__name__)
    if "RemoteMissingDepsError" in names:
        return "DVC lacks the package that speaks to it", "`pip install 'adapt-inf[s3]'` for s3://."
    if names & {"NoCredentialsError", "PartialCredentialsError"}:
        return "there are no credentials for it", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `aws configure`."
    if names & {"EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError"}:
        return f"it cannot be reached ({first})", "Nothing is lost: run the same command again when it can."
    if "PermissionError" in names:
        return f"it does not let us in ({first})", "Look at the credentials and at who may read and write there."
    return first, "Nothing is lost: mend that and run the same command again."
