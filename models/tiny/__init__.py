"""qvl-tiny, the pair of small models that comes with the package: two Hugging Face checkpoint folders."""
