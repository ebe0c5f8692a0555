"""Here so that every test finds the modules beside this file, such as `talk`."""
