"""Every module that imports RecBole imports this one first, so that RecBole runs on today's Python stack."""

from recbole_posattn import compat

compat.apply()
