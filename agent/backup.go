package agent

import (
	"bufio"
	"context"
	"os"
	"strings"
	"sync/atomic"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
)

// backupMessage is how many bytes of a backup travel in one message.
const backupMessage = 128 << 10

// Backup streams one state of the store, compressed. It holds all blocks, so it is for who may do all on this agent.
func (s *service) Backup(ctx context.Context, _ *connect.Request[apiv1.BackupRequest], stream *connect.ServerStream[apiv1.BackupResponse]) error {
	if err := callerOf(ctx).mayControl("a backup"); err != nil {
		return err
	}
	clearReadDeadline(ctx)
	out := &backupStream{ctx: ctx, stream: stream}
	buffer := bufio.NewWriterSize(out, backupMessage)
	z, err := zstd.NewWriter(buffer, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return err
	}
	defer z.Close() //nolint:errcheck // the one that counts is below
	head, err := s.store.Backup(ctx, s.self, crdtstore.BackupHead{Name: s.name, Token: s.token()}, z, out.progress)
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = buffer.Flush()
	}
	if err != nil {
		return err
	}
	return send(ctx, stream, &apiv1.BackupResponse{
		BlocksDone: head.Blocks, Blocks: head.Blocks, Entries: head.Entries, MissingEntries: int64(head.Missing), ViewDigest: head.ViewDigest,
	})
}

// token is the text of the token by which this host knows its network, if it has one: whoever has lost all hosts sets
// up the first new one with it.
func (s *service) token() string {
	text, err := os.ReadFile(s.tokenFile)
	if err != nil {
		return "" // a host that was set up by hand
	}
	return strings.TrimSpace(string(text))
}

// backupStream is an io.Writer that sends messages. The compressor writes to it from a goroutine of its own.
type backupStream struct {
	ctx         context.Context //nolint:containedctx // lives as long as the one call it serves
	stream      *connect.ServerStream[apiv1.BackupResponse]
	done, total atomic.Int64 // blocks
}

func (b *backupStream) progress(done, total int64) {
	b.done.Store(done)
	b.total.Store(total)
}

func (b *backupStream) Write(data []byte) (int, error) {
	if err := send(b.ctx, b.stream, &apiv1.BackupResponse{Data: data, BlocksDone: b.done.Load(), Blocks: b.total.Load()}); err != nil {
		return 0, err
	}
	return len(data), nil
}
