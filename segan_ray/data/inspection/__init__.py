"""Looking at a folder of cases before it is prepared."""
