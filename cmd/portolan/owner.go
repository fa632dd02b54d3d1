package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/portolan-project/portolan/internal/store"
)

// ownerSetting names the data directory whose jobs a store remembers.
const ownerSetting = "owner"

// claim ties a store to this gateway's data directory, where its jobs run. A
// gateway with another directory would find none of them there, take them for
// never started, and run them again.
func claim(ctx context.Context, st store.Store, data string) error {
	own, err := identity(filepath.Join(data, "id"))
	if err != nil {
		return refusedf("the data directory can't be used: %v", err)
	}
	have, ok, err := st.Setting(ctx, ownerSetting)
	if err == nil && !ok {
		if err = st.SetSetting(ctx, ownerSetting, []byte(own)); err == nil {
			have, _, err = st.Setting(ctx, ownerSetting) // another may have come at the same time
		}
	}
	if err != nil {
		return refusedf("%s", sentence(err))
	}
	if id, where, _ := strings.Cut(string(have), " "); id != strings.Fields(own)[0] {
		return refusedf("this etcd remembers the jobs of another gateway, with its data in %s: start that one, or use an etcd of its own for this one", plain(where))
	}
	return nil
}

// identity gives the directory's name for itself, made at first use, and where it is.
func identity(file string) (string, error) {
	id, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		id = []byte(uuid.NewString())
		err = os.WriteFile(file, id, 0o600)
	}
	if err != nil {
		return "", err
	}
	if uuid.Validate(string(id)) != nil {
		return "", errors.New(file + " does not hold an id: restore it, or move the directory away")
	}
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	return string(id) + " " + filepath.Dir(file) + " on " + host, nil
}
