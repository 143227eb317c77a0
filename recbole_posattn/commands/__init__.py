"""The commands of ``recbole-posattn``, a module each."""
