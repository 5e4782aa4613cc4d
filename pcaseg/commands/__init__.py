"""The subcommands of `pcaseg`, each a thin shell over one public function."""
