"""An inert pickle machine: it interprets opcodes as data and can neither import nor call anything.

`Machine.load` runs one pickle. What the pickle would have imported is a `Global`, what it would have called is an
`Opaque`, but for the constructors of `globals.CONSTRUCTORS`, whose results are known without running them.
"""
