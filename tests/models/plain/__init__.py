"""Models as people write them: small, in every style met in the wild, by family."""
