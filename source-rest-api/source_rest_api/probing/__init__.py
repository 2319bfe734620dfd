"""From one URL to a stream: what the API's answers show, and what its parameters do when they are tried.

A conclusion needs evidence, which its reason names; what was tried in vain is kept too. Requests go through the engine
that a sync uses (``looking``), and there is a most of them.
"""
