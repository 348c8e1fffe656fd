"""kernloom: a plugin-based semantic kernel with grounded memory.

Every public name can be imported from here; nothing heavy loads until it is used.
"""
