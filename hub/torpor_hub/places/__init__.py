"""Where workspaces are: facts about them, and the few things a controller may do to them there."""
