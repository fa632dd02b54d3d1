package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/portolan-project/portolan/adapters/condor"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/adapters/slurm"
)

func main() {
	// This same binary stands beside each job, on the gateway's machine or on a
	// manager's nodes. It then starts before anything else can fail or spend time.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case shell.SuperviseWord:
			os.Exit(shell.SuperviseMain(os.Args[2:]))
		case condor.RunWord:
			os.Exit(condor.RunMain(os.Args[2:]))
		case slurm.RunWord:
			os.Exit(slurm.RunMain(os.Args[2:]))
		}
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(newApp().execute(ctx, os.Args[1:]))
}
