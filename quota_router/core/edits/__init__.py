"""
Edits of the catalog, one row at a time: a snapshot in, another one out.

Law: an edit is checked against the snapshot it is made on, whole; what comes out is a catalog that a file could have asked for.
Never: touches a row that the file manages, but for pausing; reads or writes a table. Who edits between reading and writing is the
lane's to keep away.
"""
