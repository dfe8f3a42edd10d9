"""cnictl: container networking on plain Linux hosts. Imports nothing: the plugin's start-up passes here."""

__version__ = "0.2.0.dev0"
