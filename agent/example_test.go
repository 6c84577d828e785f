package agent_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"connectrpc.com/connect"

	"syncagent/acl"
	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// newNetwork makes what syncagent init makes: a network of one host, in a folder.
func newNetwork(dir string) (agent.Config, error) {
	_, admin, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return agent.Config{}, err
	}
	genesis := record.Genesis{Admins: []record.PublicKey{record.KeyOf(admin)}}
	if _, err := rand.Read(genesis.Nonce[:]); err != nil {
		return agent.Config{}, err
	}
	c := agent.DefaultConfig()
	c.File, c.Name, c.Network = filepath.Join(dir, "syncagent.yaml"), "host1", genesis.ID().String()
	c.Admins = []string{record.KeyOf(admin).String()}
	c.DataDir, c.API.Socket, c.API.HTTP = filepath.Join(dir, "data"), filepath.Join(dir, "agent.sock"), ""
	c.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	key, err := agent.CreateKey(c.IdentityFile())
	if err != nil {
		return agent.Config{}, err
	}
	text := fmt.Sprintf("syncagent-policy 1\nnetwork %s\nserial 1\nidentity host1 %s\nhost1 peer\nhost1 / rw\n", c.Network, record.KeyOf(key))
	return c, os.WriteFile(c.PolicyFile(), acl.Sign([]byte(text), genesis.ID(), admin), 0o600)
}

// runAgent runs an agent inside this program. Stop ends it and gives its error.
func runAgent(c agent.Config) (stop func() error, err error) {
	ready := make(chan struct{})
	a, err := agent.New(c, agent.Options{Version: "example", OnReady: func() { close(ready) }})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	select {
	case <-ready:
		return func() error { cancel(); return <-done }, nil
	case err := <-done:
		cancel()
		return nil, err
	}
}

// runNetwork runs the one agent of a new network in a folder that goes with it.
func runNetwork() (socket string, stop func() error) {
	dir, err := os.MkdirTemp("", "syncagent-example-")
	if err != nil {
		log.Fatal(err)
	}
	config, err := newNetwork(dir)
	if err != nil {
		log.Fatal(err)
	}
	end, err := runAgent(config)
	if err != nil {
		log.Fatal(err)
	}
	return config.API.Socket, func() error { return errors.Join(end(), os.RemoveAll(dir)) }
}

// A program runs an agent inside itself, and uses it by the same client that others use.
func ExampleAgent() {
	socket, stop := runNetwork()
	client, err := agent.Dial(socket)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if _, err = client.KV.Put(ctx, connect.NewRequest(&apiv1.PutRequest{Path: "/app/flag", Value: []byte("on")})); err != nil {
		log.Fatal(err)
	}
	r, err := client.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: "/app/flag"}))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s is %s, written by %s\n", r.Msg.GetEntry().GetPath(), r.Msg.GetEntry().GetValue(), r.Msg.GetEntry().GetAlias())
	client.Close()
	fmt.Println("stopped:", stop())
	// Output:
	// /app/flag is on, written by host1
	// stopped: <nil>
}

// A client writes, conditionally, and follows changes. With several agents to Dial it would go on when one is lost.
func ExampleClient() {
	socket, stop := runNetwork()
	client, err := agent.Dial(socket) // more sockets or URLs may follow
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	put := func(value, ifVersion string) (version string) {
		r, err := client.KV.Put(ctx, connect.NewRequest(&apiv1.PutRequest{Path: "/app/flag", Value: []byte(value), IfVersion: ifVersion}))
		if e := agent.ErrorOf(err); e != nil {
			fmt.Println(value, "refused:", e.Code)
			return ""
		}
		return r.Msg.GetVersion()
	}
	first := put("on", "")
	put("off", first)
	put("on", first) // it is not what is there any more

	// The present state, then every change.
	_ = client.Follow(ctx, &apiv1.WatchRequest{Prefixes: []string{"/app"}, Values: true}, func(e *apiv1.Event) error {
		fmt.Printf("%s %s=%s\n", agent.EventName(e.GetType()), e.GetEntry().GetPath(), e.GetEntry().GetValue())
		if e.GetType() == apiv1.EventType_EVENT_TYPE_SYNCED {
			cancel()
		}
		return nil
	})
	client.Close()
	fmt.Println("stopped:", stop())
	// Output:
	// on refused: precondition
	// put /app/flag=off
	// synced =
	// stopped: <nil>
}
