"""Measurements against other tools and against logistic regression; DATA.md says where the data come from."""
