package boinctest

import (
	"bufio"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
)

// The database on disk is a journal: a line holds the rows that one transaction
// changed. A line that was cut by the death of the process did not happen.

type entry struct {
	Batches   []*Batch         `json:",omitempty"`
	Workunits []*Workunit      `json:",omitempty"`
	Results   []*Result        `json:",omitempty"`
	Files     []*JobFile       `json:",omitempty"`
	Next      map[string]int64 `json:",omitempty"`
}

func (p *Project) load() error {
	path := filepath.Join(p.dir, "journal")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	p.journal = f
	good := int64(0)
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			break
		}
		var e entry
		if json.Unmarshal(line, &e) != nil {
			break
		}
		p.apply(&e)
		good += int64(len(line))
	}
	if err := f.Truncate(good); err != nil {
		return err
	}
	_, err = f.Seek(good, 0)
	for _, r := range sorted(p.results, func(r *Result) int64 { return r.ID }) {
		if r.ServerState == ServerUnsent {
			p.unsent = append(p.unsent, r.ID)
		}
		if r.ServerState == ServerInProgress {
			p.hold(r.Host, r.Name)
		}
	}
	return err
}

func (p *Project) apply(e *entry) {
	for _, b := range e.Batches {
		p.batches[b.ID] = b
	}
	for _, w := range e.Workunits {
		if old := p.wus[w.ID]; old != nil {
			*old = *w
			continue
		}
		p.addWU(w)
	}
	for _, r := range e.Results {
		if old := p.results[r.ID]; old != nil {
			*old = *r
			continue
		}
		p.addResult(r)
	}
	for _, f := range e.Files {
		p.files[f.Name] = f
	}
	maps.Copy(p.next, e.Next)
}

func (p *Project) addWU(w *Workunit) {
	p.wus[w.ID], p.wuNames[w.Name] = w, w
	p.ofBatch[w.Batch] = append(p.ofBatch[w.Batch], w)
}

func (p *Project) addResult(r *Result) {
	p.results[r.ID], p.byName[r.Name] = r, r
	p.ofWU[r.Workunit] = append(p.ofWU[r.Workunit], r)
}

// touch notes that rows change in this transaction.
func (p *Project) touch(rows ...any) {
	p.dirty = append(p.dirty, rows...)
}

// commit ends a transaction.
func (p *Project) commit() {
	if len(p.dirty) == 0 {
		return
	}
	e := entry{Next: p.next}
	seen := map[any]bool{}
	for _, row := range p.dirty {
		if seen[row] {
			continue
		}
		seen[row] = true
		switch r := row.(type) {
		case *Batch:
			e.Batches = append(e.Batches, r)
		case *Workunit:
			e.Workunits = append(e.Workunits, r)
		case *Result:
			e.Results = append(e.Results, r)
		case *JobFile:
			e.Files = append(e.Files, r)
		}
	}
	p.dirty = p.dirty[:0]
	line, err := json.Marshal(e)
	if err != nil {
		panic(err) // rows are plain
	}
	_, _ = p.journal.Write(append(line, '\n')) // fails only when the project is closed
}

// hold notes that a host has an instance.
func (p *Project) hold(host int64, result string) {
	if p.tasks[host] == nil {
		p.tasks[host] = map[string]bool{}
	}
	p.tasks[host][result] = true
}
