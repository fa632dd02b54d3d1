package plugin

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Type is the type of such sites in the configuration.
const Type = "plugin"

// Open starts the plug-in that the settings name. A program that is none, of another
// version of the protocol or with settings that the plug-in refuses is an error; one
// that can't be started now is not, as it may be later: Health says it.
func Open(c adapters.Config) (adapters.Adapter, error) {
	var settings Settings
	if err := c.Settings.Decode(&settings); err != nil {
		return nil, err
	}
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	settings.ensureDefaults()
	h := &host{site: c.Site, settings: settings, log: c.Log}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if c.Dir != "" {
		h.dir, h.memory = filepath.Join(c.Dir, "plugin"), filepath.Join(c.Dir, "claims.json")
		if err := os.MkdirAll(h.dir, 0o700); err != nil {
			return nil, fail.Errorf("plugin.Open", fail.Unavailable, c.Site, "the plug-in's directory could not be made").Because(err)
		}
	}
	h.launch = func(ctx context.Context) (*session, error) { return launch(ctx, &h.settings, h.dir, h.log) }
	return h.open()
}

// open begins, and gives what has just the abilities that are claimed.
func (h *host) open() (adapters.Adapter, error) {
	if err := h.begin(context.Background()); err != nil {
		return nil, err
	}
	s, o, w := suspender{h}, holder{h}, watcher{h}
	switch [3]bool{h.claims.Suspend, h.claims.Hold, h.claims.Push} {
	case [3]bool{true, false, false}:
		return struct {
			*host
			suspender
		}{h, s}, nil
	case [3]bool{false, true, false}:
		return struct {
			*host
			holder
		}{h, o}, nil
	case [3]bool{true, true, false}:
		return struct {
			*host
			suspender
			holder
		}{h, s, o}, nil
	case [3]bool{false, false, true}:
		return struct {
			*host
			watcher
		}{h, w}, nil
	case [3]bool{true, false, true}:
		return struct {
			*host
			suspender
			watcher
		}{h, s, w}, nil
	case [3]bool{false, true, true}:
		return struct {
			*host
			holder
			watcher
		}{h, o, w}, nil
	case [3]bool{true, true, true}:
		return struct {
			*host
			suspender
			holder
			watcher
		}{h, s, o, w}, nil
	}
	return h, nil
}

// Properties gives what the plug-in claimed when it was opened.
func (h *host) Properties() adapters.Properties {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.claims
	if p.Version == "" {
		p.Version = h.props.Version
	}
	return p
}

// Health gives the plug-in's own word, and how the plug-in itself is.
func (h *host) Health() adapters.Health {
	if s, err := h.session("Health"); err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), askHealth)
		defer cancel()
		if err := h.ask(ctx, s); err != nil && refusal("Health", err) == nil {
			h.log.Debug("the plug-in does not answer for its health", "error", err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.health
	out.Requests += h.requests
	out.Offered, out.Remarks = slices.Clone(out.Offered), slices.Clone(out.Remarks)
	if out.Path == "" {
		out.Path = Type
	}
	if !h.alive() {
		out.Problem, out.Since = cmp.Or(h.problem, "the plug-in is down"), h.since
	} else if out.Since.IsZero() {
		out.Since = h.since
	}
	if h.starts > 1 {
		out.Remarks = append(out.Remarks, fmt.Sprintf("the plug-in was started again %d times since the site was opened; the last time because %s", h.starts-1, h.ended))
	}
	if h.remark != "" {
		out.Remarks = append(out.Remarks, h.remark)
	}
	return out
}

// Close ends the plug-in; jobs go on.
func (h *host) Close() error {
	h.stop()
	h.running.Wait()
	return nil
}

// Kill ends the program of a plug-in as a crash of it would, and returns when nothing
// of it is left; it is started again. It is for judging plug-ins; other adapters are
// left alone.
func Kill(a adapters.Adapter) {
	k, ok := a.(interface{ crash() })
	if !ok {
		return
	}
	k.crash()
}

func (h *host) crash() {
	if s, err := h.session("Kill"); err == nil {
		s.kill("it was killed on purpose")
		<-s.done
	}
}
