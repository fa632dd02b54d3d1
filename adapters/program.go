package adapters

import "github.com/portolan-project/portolan/jsdl"

// ProgramOf gives what a definition runs, the same for both applications. A
// definition without an application, or without an executable, runs nothing.
func ProgramOf(d *jsdl.JobDefinition) jsdl.Program {
	if d == nil || d.Description.Application == nil {
		return jsdl.Program{}
	}
	if p := d.Description.Application.POSIX; p != nil {
		program := jsdl.Program{
			Arguments: p.Arguments, Input: p.Input, Output: p.Output, Error: p.Error, WorkingDirectory: p.WorkingDirectory,
			Environment: p.Environment, Limits: p.Limits, UserName: p.UserName, GroupName: p.GroupName,
		}
		if p.Executable != nil {
			program.Executable = *p.Executable
		}
		return program
	}
	h := d.Description.Application.HPC
	if h == nil {
		return jsdl.Program{}
	}
	program := jsdl.Program{
		Input: text(h.Input), Output: text(h.Output), Error: text(h.Error), WorkingDirectory: text(h.WorkingDirectory),
		Environment: h.Environment, UserName: h.UserName,
	}
	if h.Executable != nil {
		program.Executable.Value = *h.Executable
	}
	for _, a := range h.Arguments {
		program.Arguments = append(program.Arguments, jsdl.Text{Value: a})
	}
	return program
}

func text(s *string) *jsdl.Text {
	if s == nil {
		return nil
	}
	return &jsdl.Text{Value: *s}
}
