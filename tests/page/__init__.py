"""Page: do components, forms and output events accept valid values and reject all others?"""
