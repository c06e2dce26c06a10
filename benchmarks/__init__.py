"""How fast our server answers, beside floors and beside other servers, measured in one run."""
