"""Makes the artifacts that ``sam build`` packages: one folder for each function, the same bytes every time."""
