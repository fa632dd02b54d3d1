package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// ownerSetting names the data directory whose jobs a store remembers.
const ownerSetting = "owner"

// claim ties a store to this gateway's data directory, where its jobs run. A
// gateway with another directory would find none of them there, take them for
// never started, and run them again. A directory that was not used before, and is
// refused, is left as one.
func claim(ctx context.Context, st store.Store, data, domain string) error {
	file := filepath.Join(data, "id")
	_, err := os.Stat(file)
	fresh := errors.Is(err, fs.ErrNotExist)
	own, err := ownName(file)
	if err != nil {
		return refusedf("the data directory can't be used: %v", err)
	}
	have, ok, err := st.Setting(ctx, ownerSetting)
	if err == nil && !ok {
		have, err = firstOwner(ctx, st, own)
	}
	if err != nil {
		return refusedf("%s", sentence(err))
	}
	if id, where, _ := strings.Cut(string(have), " "); id != strings.Fields(own)[0] {
		if fresh {
			if err := os.Remove(file); err != nil {
				return refusedf("the data directory can't be used: %v", err)
			}
		}
		of := ""
		if domain != "" {
			of = " of the domain " + domain
		}
		return refusedf("this etcd remembers the jobs of another gateway%s, with its data in %s: start that one, give this one a name of its own with --domain, or use an etcd of its own for it", of, plain(where))
	}
	return nil
}

// firstOwner makes this directory the owner of a store that has none, and gives the one
// that it has then: of several that come at once, one.
func firstOwner(ctx context.Context, st store.Store, own string) ([]byte, error) {
	_, err := st.PutRecords(ctx, nil, store.RecordChange{Key: ownerSetting, Value: []byte(own), If: 0})
	if err != nil && !fail.Is(err, fail.Conflict) {
		return nil, err
	}
	records, _, err := st.ListRecords(ctx, ownerSetting, store.RecordOptions{Limit: 1})
	switch {
	case err != nil:
		return nil, err
	case len(records) == 0 || records[0].Key != ownerSetting:
		return nil, fail.Errorf("serve", fail.Unavailable, "", "the store lost who owns it; start the gateway again")
	}
	return records[0].Value, st.SetSetting(ctx, ownerSetting, records[0].Value)
}

// ownName gives the directory's name for itself, made at first use, and where it is.
func ownName(file string) (string, error) {
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
