package slurm

import (
	"bytes"
	"context"
	_ "embed"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"

	"github.com/portolan-project/portolan/adapters"
)

// Hook is the script that an administrator may install in Slurm, so that what happens
// to jobs without the runner's knowledge is known at once.
//
//go:embed hook/portolan-slurm-hook.sh
var Hook string

// listen takes what runners, and Slurm's hook, tell. Both are hints: what they are about
// is read where it stands, and what they miss is seen by asking.
func (a *Adapter) listen(ctx context.Context) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		a.log.Warn("starts and ends are not pushed", "site", a.name, "error", err)
		return
	}
	defer func() { _ = w.Close() }()
	if err := w.Add(a.spool.path(dirEvents)); err != nil {
		a.log.Warn("starts and ends are not pushed", "site", a.name, "error", err)
	}
	hook := hookFile{path: a.settings.Events, prefix: a.prefix()}
	if hook.path != "" {
		// The directory, as the file may not be there yet, or be replaced.
		if err := w.Add(filepath.Dir(hook.path)); err != nil {
			a.log.Warn("the file of Slurm's hook can't be watched", "file", hook.path, "error", err)
		}
		hook.skip()
	}
	a.scanEvents()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.Events:
			switch {
			case !ok:
				return
			case e.Name == hook.path && hook.path != "":
				if e.Op&(fsnotify.Write|fsnotify.Create) != 0 && hook.news() {
					a.soon()
				}
			case e.Op&fsnotify.Create != 0 && filepath.Dir(e.Name) == a.spool.path(dirEvents):
				a.heard(filepath.Base(e.Name))
			}
		case err, ok := <-w.Errors:
			if !ok {
				return
			}
			a.log.Warn("watching for starts and ends", "site", a.name, "error", err)
			a.scanEvents() // too many at once: some were not told
		}
	}
}

// scanEvents takes the events that nobody told of: where the file system does not, or
// while no gateway was there.
func (a *Adapter) scanEvents() {
	dir, err := os.Open(a.spool.path(dirEvents))
	if err != nil {
		return
	}
	defer dir.Close() // only read
	for {
		names, err := dir.Readdirnames(1000)
		for _, name := range names {
			a.heard(name)
		}
		if err != nil {
			return
		}
	}
}

// heard takes one event.
func (a *Adapter) heard(name string) {
	kind := filepath.Ext(name)
	tag := adapters.Tag(strings.TrimSuffix(name, kind))
	if tag.Validate() == nil && (kind == eventStart || kind == eventEnd) {
		a.mu.Lock()
		m := a.members[tag]
		a.mu.Unlock()
		if m != nil {
			a.told(m, kind)
		}
	}
	_ = os.Remove(a.spool.path(dirEvents, name))
}

func (a *Adapter) told(m *member, kind string) {
	if kind == eventEnd {
		if !a.fromRunner(m) {
			a.soon() // only Slurm knows why
		}
		return
	}
	if a.observe(m) == nil {
		return
	}
	a.mu.Lock()
	first := m.evidence.Phase == adapters.Queued || m.evidence.Phase == adapters.Held
	a.mu.Unlock()
	if first {
		a.publish(m, a.runningEvidence(m, ""))
	}
}

// hookFile is the file that Slurm's hook appends to.
type hookFile struct {
	path, prefix string
	offset       int64
}

// maxHookFile is how large it may become before it is emptied, in bytes.
const maxHookFile = 1 << 20

// skip leaves out what was written before.
func (h *hookFile) skip() {
	if info, err := os.Stat(h.path); err == nil {
		h.offset = info.Size()
	}
}

// news reads what was added, and reports whether it is about one of our jobs.
func (h *hookFile) news() bool {
	f, err := os.Open(h.path)
	if err != nil {
		return false
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	if info.Size() < h.offset {
		h.offset = 0
	}
	data, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, h.offset, info.Size()-h.offset), 4*maxHookFile))
	if err != nil {
		return false
	}
	h.offset += int64(len(data))
	if h.offset > maxHookFile {
		if os.Truncate(h.path, 0) == nil { // what is added in this moment is seen by asking
			h.offset = 0
		}
	}
	return bytes.Contains(data, []byte(" "+h.prefix))
}
