"""Where Parley is spoken."""

from llmproxy_core import Api, Operation

NAME = "parley"
TALK = Api("parley.talk", Operation.CHAT, "POST", "/talk")
PLACES = Api("parley.places", Operation.EMBEDDINGS, "POST", "/places")
VOICES = Api("parley.voices", Operation.MODELS, "GET", "/voices", has_body=False)
