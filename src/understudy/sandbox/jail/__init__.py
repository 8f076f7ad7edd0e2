"""What runs in the other process: the jail, from its start to the program inside it.

A clean interpreter runs this package (``python -S -s -P``), so it imports the standard library only. It is started
once, isolates itself once, and then forks for every program that is sent to it:

    jail process ─fork→ supervisor ─fork→ program
    (isolated root,      (its own mounts,    (no capabilities, limits, no further processes,
     no network)          watches, kills)     first process of its own namespace)

What is sent to a program goes from the caller to the supervisor through a file of its own, so no program's tests are
ever in the memory that the next one is forked from.
"""
