"""From an OpenAPI 3 or Swagger 2 document to a configuration of this source. Pure.

Everything is a guess with its reason, or a gap that is named: what cannot be said from the document is a placeholder
such as ``<owner>``. An operation becomes a stream only if its document says that it answers a list; every other one is
named with the reason why it did not.
"""
