package main

import ("context"; "io")

func (b *bench) measureNothing(ctx context.Context, out io.Writer) error { return nil }
func (b *bench) measureSkip(ctx context.Context, out io.Writer) error { return nil }
func (b *bench) measureServe(ctx context.Context, out io.Writer) error { return nil }
func (b *bench) measureBig(ctx context.Context, out io.Writer) error { return nil }
