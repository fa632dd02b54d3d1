package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// configState says which configuration is in use, for people.
type configState struct {
	File    string
	Read    time.Time // when what is in use was read
	Problem string    // why the file as it is now is not in use; "" when it is
	Since   time.Time // of Problem
}

// snapshot gives the state, or nil without a configuration.
func (k *siteKeeper) snapshot() *configState {
	if k.file == "" {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.state
	return &s
}

// start takes the configuration that the gateway starts with.
func (k *siteKeeper) start() (*gatewayConfig, error) {
	c, content, err := readConfig(k.file)
	if err != nil {
		return nil, err
	}
	k.content, k.state = content, configState{File: k.file, Read: time.Now()}
	return c, nil
}

// reload reads the file anew. One that is wrong changes nothing: that is logged,
// and shown by portolan sites. Asked says that somebody asked for it; otherwise a
// file whose content is what it was is left alone.
func (k *siteKeeper) reload(asked bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, content, err := readConfig(k.file)
	if !asked && content != nil && bytes.Equal(content, k.content) {
		return
	}
	if content != nil {
		k.content = content
	}
	if err == nil {
		err = k.use(c)
	}
	now := time.Now()
	if err == nil {
		k.state.Read, k.state.Problem, k.state.Since = now, "", time.Time{}
		return
	}
	if problem := sentence(err); !asked && problem == k.state.Problem && content == nil {
		return // it is still not there
	}
	k.log.Error("the configuration is not used, and nothing is changed", "file", k.file, "cause", err)
	k.state.Problem, k.state.Since = sentence(err), now
}

// settleTime is how long a file must be left alone before it is read: editors
// write in several steps.
const (
	settleTime = 200 * time.Millisecond
	busyTime   = 2 * time.Second // in a directory where something always changes
)

// follow reads the file anew on SIGHUP and when it changed, until ctx ends.
func (k *siteKeeper) follow(ctx context.Context) error {
	if k.file == "" {
		return nil
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	// The directory is watched, as editors and mounted volumes put another file in
	// the place of the one that was.
	var events chan fsnotify.Event
	var faults chan error
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close() //nolint:errcheck // nothing of it is kept
		events, faults = watcher.Events, watcher.Errors
		err = watcher.Add(filepath.Dir(k.file))
	}
	if err != nil {
		k.log.Warn("changes of the configuration are not seen; send SIGHUP after one", "file", k.file, "cause", err)
	}
	k.reload(false) // it may have changed since it was read
	settled := time.NewTimer(settleTime)
	settled.Stop()
	var first time.Time // of the changes that were not read yet
	changed := func() {
		if first.IsZero() {
			first = time.Now()
		}
		if time.Since(first) < busyTime {
			settled.Reset(settleTime)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			k.reload(true)
		case _, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			changed()
		case err, ok := <-faults:
			if !ok {
				faults = nil
				continue
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				changed()
				continue
			}
			k.log.Warn("watching the configuration", "file", k.file, "cause", err)
		case <-settled.C:
			first = time.Time{}
			k.reload(false)
		}
	}
}

// absolute gives the path of the configuration whatever the directory becomes.
func absolute(file string) (string, error) {
	p, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("--config: %w", err)
	}
	return p, nil
}
