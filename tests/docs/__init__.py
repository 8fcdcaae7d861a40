"""The pages: their programs run, and their pictures are true."""
