package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/portolan-project/portolan/adapters/shell"
)

func main() {
	// The gateway runs this same binary beside each job of its own machine. Such a
	// supervisor starts before anything else can fail or spend time.
	if len(os.Args) > 1 && os.Args[1] == shell.SuperviseWord {
		os.Exit(shell.SuperviseMain(os.Args[2:]))
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(newApp().execute(ctx, os.Args[1:]))
}
