// Package plugintest judges a plug-in by the suite that judges every adapter,
// outside of go test: it is what `portolan adapter test` does.
package plugintest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/plugin"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// Options say how a plug-in is judged.
type Options struct {
	Command  []string          // the program and its arguments
	Settings string            // YAML, for the plug-in
	NoTLS    bool              // it serves without
	Filter   string            // a regular expression of the parts to be run; "" is all
	Programs bool              // jobs are programs of this machine, which share its files
	Lacks    map[string]string // what the manager really can't do, by the suite's names, with the reason
	Many     int               // jobs at once in the part Many; 0 is the suite's own
	Short    bool              // leave the part of five thousand jobs out
	Patience time.Duration     // for whatever must happen; 0 is the suite's own
	Pace     time.Duration     // how long a job must run for the manager to show it; 0 is the suite's own
	Umask    int               // that jobs see
	Log      *slog.Logger      // of the plug-in; nil is none
}

// Judge runs the suite against the plug-in and writes a line for each part. The
// plug-in's own settings are the same in each part, its directory is a fresh one.
func Judge(ctx context.Context, w io.Writer, o Options) (adaptertest.Report, error) {
	text, err := o.settings()
	if err != nil {
		return adaptertest.Report{}, err
	}
	open := func(dir string) (adapters.Adapter, error) {
		s, err := adapters.ParseSettings(text)
		if err != nil {
			return nil, err
		}
		a, err := plugin.Open(adapters.Config{Site: "judged", Dir: dir, Settings: s, Log: o.Log})
		if err != nil {
			return nil, err
		}
		if p := a.Health().Problem; p != "" && !up(ctx, a, o.Patience) {
			_ = a.Close()
			return nil, fail.Errorf("plugintest.Judge", fail.Unavailable, "", "%s", p)
		}
		return a, nil
	}
	h := adaptertest.Harness{
		Site: func(t testing.TB) any { return t.TempDir() },
		Open: func(t testing.TB, site any) adapters.Adapter {
			a, err := open(site.(string))
			if err != nil {
				t.Fatalf("the plug-in can't be opened: %s", fail.Sentence(err))
			}
			return a
		},
		Crash:    func(a adapters.Adapter) { plugin.Kill(a); _ = a.Close() },
		Programs: o.Programs, Lacks: o.Lacks, Many: o.Many, Short: o.Short, Patience: o.Patience, Pace: o.Pace, Umask: o.Umask,
	}
	// What is wrong before anything is judged is told once, not by every part.
	dir, err := os.MkdirTemp("", "portolan-adapter-test-")
	if err != nil {
		return adaptertest.Report{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	a, err := open(dir)
	if err != nil {
		return adaptertest.Report{}, err
	}
	p := a.Properties()
	h.Limits = limits(a)
	if err := a.Close(); err != nil {
		return adaptertest.Report{}, err
	}
	if _, err := fmt.Fprintf(w, "%s, version %s (%s); abilities: %s\n", p.Type, p.Version, p.ManagerURI, abilities(p)); err != nil {
		return adaptertest.Report{}, err
	}
	return adaptertest.Judge(ctx, w, h, o.Filter)
}

// up waits for a manager that is down at first.
func up(ctx context.Context, a adapters.Adapter, patience time.Duration) bool {
	if patience == 0 {
		patience = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, min(patience, 10*time.Second))
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for a.Health().Problem != "" {
		select {
		case <-ctx.Done():
			return false
		case <-again.C:
		}
	}
	return true
}

// settings writes the site's settings.
func (o *Options) settings() (string, error) {
	var passed yaml.Node
	if err := yaml.Unmarshal([]byte(o.Settings), &passed); err != nil {
		return "", fail.Errorf("plugintest.Judge", fail.Invalid, "settings", "the settings are no YAML: %v", err)
	}
	site := map[string]any{"command": o.Command, "tls": !o.NoTLS}
	if len(passed.Content) > 0 {
		site["settings"] = passed.Content[0]
	}
	text, err := yaml.Marshal(site)
	return string(text), err
}

// limits finds out which limits an adapter takes: those it must keep then.
func limits(a adapters.Adapter) map[string]bool {
	claimed := map[string]bool{}
	one := big.NewInt(1)
	for element, l := range map[string]jsdl.Limits{
		"WallTimeLimit": {WallTime: one}, "FileSizeLimit": {FileSize: one}, "CoreDumpLimit": {CoreDump: one}, "DataSegmentLimit": {DataSegment: one},
		"LockedMemoryLimit": {LockedMemory: one}, "MemoryLimit": {Memory: one}, "OpenDescriptorsLimit": {OpenDescriptors: one},
		"PipeSizeLimit": {PipeSize: one}, "StackSizeLimit": {StackSize: one}, "CPUTimeLimit": {CPUTime: one},
		"ProcessCountLimit": {ProcessCount: one}, "VirtualMemoryLimit": {VirtualMemory: one}, "ThreadCountLimit": {ThreadCount: one},
	} {
		d := adaptertest.Command("/bin/true")
		d.Description.Application.POSIX.Limits = l
		if a.Check(d) == nil {
			claimed[element] = true
		}
	}
	return claimed
}

func abilities(p adapters.Properties) string {
	var has []string
	for _, a := range []struct {
		name string
		has  bool
	}{{"suspend", p.Suspend}, {"hold", p.Hold}, {"push", p.Push}, {"bulk", p.Bulk}} {
		if a.has {
			has = append(has, a.name)
		}
	}
	if p.MaxBatch > 0 {
		has = append(has, "batches of "+strconv.Itoa(p.MaxBatch))
	}
	if len(has) == 0 {
		return "none"
	}
	return strings.Join(has, ", ")
}
