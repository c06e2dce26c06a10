"""One model, from its folder to an answer: `model.Model`, and `calls` for what goes in and out.

No module here knows a socket, a slot or another call. Of HTTP there is what scripts see of it: the
headers of a request, and the status and headers of a reply.
"""
