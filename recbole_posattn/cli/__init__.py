"""What you type: the commands of ``recbole-posattn``."""
