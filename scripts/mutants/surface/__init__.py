"""Of the surface that users of TRL meet."""
