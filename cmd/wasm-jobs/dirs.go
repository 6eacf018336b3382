package main

import (
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
)

// cacheDir returns the directory of the program's caches. On every system, it is in
// XDG_CACHE_HOME if that is set.
func cacheDir() (string, error) {
	dir := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(dir) {
		var err error
		if dir, err = os.UserCacheDir(); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "wasm-jobs"), nil
}

// compiledDir returns the directory of compiled modules, or "".
func compiledDir() string {
	dir, err := cacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "compiled")
}

// storeDir returns the directory, or the URL of a database, that --store names.
func storeDir(ctx *cli.Context) (string, error) {
	if isSet(ctx, "store") {
		if ctx.String("store") == "" {
			return "", usageErrorf("empty --store: want a directory")
		}
		return namedStore(ctx.String("store"))
	}
	if shared := os.Getenv(storeVariable); shared != "" {
		return namedStore(shared)
	}
	dir, err := cacheDir()
	if err != nil {
		return "", usageErrorf("missing directory for the store: %w; --store DIR names one", err)
	}
	return dir, nil
}
