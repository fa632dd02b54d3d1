package engine_test

func child() {}
