"""Settings and keys: from ``kernloom.toml``, the user or the environment, each with its origin."""

from .config import Config, UserFolders, user_folders

__all__ = ["Config", "UserFolders", "user_folders"]
