package boinctest

import (
	"strings"
)

// inputTemplate is what a template says of a job's inputs and limits.
type inputTemplate struct {
	files       []templateFile
	refs        []templateRef
	commandLine string
	hasCommand  bool
	limits      func(*Limits)
}

type templateFile struct {
	flags    []string // elements without content, as they stand
	physical string   // of a constant file
}

type templateRef struct {
	openName string
	copyFile bool
}

// variable counts the files that each job brings.
func (t *inputTemplate) variable() int {
	n := 0
	for _, f := range t.files {
		if f.physical == "" {
			n++
		}
	}
	return n
}

func parseInputTemplate(text string) (*inputTemplate, error) {
	root, err := parseTemplate(text)
	if err != nil {
		return nil, err
	}
	return inputTemplateOf(root), nil
}

// parseTemplate takes a template with or without its root: files of old have none.
func parseTemplate(text string) (*node, error) {
	root, err := parseXML("<template>" + text + "</template>")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"input_template", "output_template"} {
		if c := root.child(name); c != nil {
			return c, nil
		}
	}
	return root, nil
}

func inputTemplateOf(n *node) *inputTemplate {
	t := &inputTemplate{}
	for _, f := range n.all("file_info") {
		var file templateFile
		for _, c := range f.children {
			if c.name == "physical_name" {
				file.physical = strings.TrimSpace(c.text)
			} else if strings.TrimSpace(c.text) == "" && len(c.children) == 0 {
				file.flags = append(file.flags, c.name)
			}
		}
		t.files = append(t.files, file)
	}
	wu := n.child("workunit")
	for _, r := range wu.all("file_ref") {
		t.refs = append(t.refs, templateRef{openName: strings.TrimSpace(r.str("open_name")), copyFile: r.has("copy_file")})
	}
	t.commandLine, t.hasCommand = strings.TrimSpace(wu.str("command_line")), wu.has("command_line")
	t.limits = func(l *Limits) { setLimits(l, wu) }
	return t
}

// setLimits takes over the limits that an element holds.
func setLimits(l *Limits, n *node) {
	for name, at := range map[string]*float64{
		"rsc_fpops_est": &l.FpopsEst, "rsc_fpops_bound": &l.FpopsBound, "rsc_memory_bound": &l.MemoryBound, "rsc_disk_bound": &l.DiskBound,
	} {
		if n.has(name) {
			*at = n.float(name)
		}
	}
	if n.has("delay_bound") {
		l.DelayBound = n.num("delay_bound")
	}
	for name, at := range map[string]*int{
		"min_quorum": &l.MinQuorum, "target_nresults": &l.TargetResults, "max_error_results": &l.MaxErrors,
		"max_total_results": &l.MaxTotal, "max_success_results": &l.MaxSuccess, "size_class": &l.SizeClass,
	} {
		if n.has(name) {
			*at = int(n.num(name))
		}
	}
}

// builtIn are the values used where neither template nor job_params speaks.
func builtIn() Limits {
	return Limits{
		FpopsEst: 3.6e12, FpopsBound: 8.64e13, MemoryBound: 5e8, DiskBound: 1e9, DelayBound: 7 * 86400,
		MinQuorum: 1, TargetResults: 1, MaxErrors: 1, MaxTotal: 1, MaxSuccess: 1,
	}
}

func parseOutputs(text string) ([]Output, error) {
	root, err := parseTemplate(text)
	if err != nil {
		return nil, err
	}
	return outputsOf(root), nil
}

func outputsOf(n *node) []Output {
	infos := n.all("file_info")
	var list []Output
	for i, r := range n.child("result").all("file_ref") {
		o := Output{OpenName: strings.TrimSpace(r.str("open_name")), Optional: r.has("optional"), CopyFile: r.has("copy_file")}
		if i < len(infos) {
			o.MaxBytes = infos[i].float("max_nbytes")
		}
		list = append(list, o)
	}
	return list
}
