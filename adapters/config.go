package adapters

import "log/slog"

// Config is what the adapter of a site is opened with.
type Config struct {
	Site     string   // the site's name
	Dir      string   // a directory that is the site's alone, for what the adapter must remember; it exists
	Settings Settings // what the site's entry in the configuration says
	Log      *slog.Logger
}
