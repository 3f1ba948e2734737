"""Human-designed merging algorithms in the contract of a program, read by `library.load_program`.

They take mergekit's parameter names in upper case and its conventions, computing in float32.
"""
