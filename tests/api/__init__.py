"""Do the public names, imports, layers, documents and TURN helpers hold what they promise?"""
