package sign

import (
	"context"
	"sync"
)

// A batch runs jobs on a few goroutines while its owner goes on reading the
// payload. The owner sees results only after wait, so jobs write where nobody
// else does and the order of completion is of no concern.
type batch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	queue  chan func() error
	done   sync.WaitGroup
}

// newBatch starts n workers; the caller must call wait. The queue is long
// because a job holds a digest, not a file.
func newBatch(ctx context.Context, n int) *batch {
	b := &batch{queue: make(chan func() error, 1024)}
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	for range max(n, 1) {
		b.done.Go(func() {
			for job := range b.queue {
				if b.ctx.Err() != nil {
					continue
				}
				if err := job(); err != nil {
					b.cancel(err)
				}
			}
		})
	}
	return b
}

// add queues a job, or returns the first error that a job returned.
func (b *batch) add(job func() error) error {
	select {
	case b.queue <- job:
		return nil
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
}

// wait ends the batch and returns the first error of a job, or of the context.
func (b *batch) wait() error {
	close(b.queue)
	b.done.Wait()
	err := context.Cause(b.ctx)
	b.cancel(nil)
	return err
}
