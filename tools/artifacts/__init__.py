"""Makes the artifacts that ``sam build`` packages: a folder for each function, the same bytes every time."""
