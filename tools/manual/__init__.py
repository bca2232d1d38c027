"""The manual (mkdocs.yml): what of its pages is made from the code when it is built."""
