"""What a person sees of a round, built from the files that its stages left: pictures, a gallery, one page with all."""
