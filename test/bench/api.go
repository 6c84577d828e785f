package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
)

// agentFigures are of processes of the program on loopback, through the API.
func agentFigures() []figure {
	return []figure{
		{name: "durable put through the API, 1 client, 3 agents", unit: "/s", measure: apiRate(1)},
		{name: "durable put through the API, 64 clients, 3 agents", goal: "1.5 x etcd of 3", unit: "/s", measure: apiRate(64)},
		{name: "durable put through the API, 512 clients, 3 agents", unit: "/s", measure: apiRate(512)},
		{name: "put -> watch on another agent, 20/s, 3 agents", goal: "etcd of 3", unit: "s", measure: apiLatency},
		{name: "put --wait all --for triggered, 5 agents", goal: "300 ms", unit: "s", measure: waitTriggered},
		{name: "put -> file on another host -> trigger finished", goal: "150 ms", unit: "s", measure: triggered},
		{name: "10k files of 1 KiB mirrored to a new host", goal: "5 s", unit: "s", measure: newHost},
		{name: "1 GB of 10 MiB values mirrored to a new host", goal: "3 x written, 150 MB", unit: "s", measure: mirrorLarge, long: true},
		{name: "3 status pages while 10k changes a minute come in", goal: "10 % of a core", unit: "% of a core", measure: watchedPage},
		{name: "RSS of an idle agent, empty", goal: "40 MB", unit: "MB", measure: memory(0)},
		{name: "RSS of an idle agent, 100k keys", goal: "45 MB, loading 150", unit: "MB", measure: memory(100_000)},
		{name: "RSS of an idle agent, 1M keys", unit: "MB", measure: memory(1_000_000), long: true},
		{name: "start with 100k keys after kill -9, until ready", goal: "1 s", unit: "s", measure: restart(100_000)},
		{name: "start with 1M keys after kill -9, until ready", goal: "1 s", unit: "s", measure: restart(1_000_000), long: true},
		{name: "catch-up, 1M records, by a new agent", goal: "14 s, under 400 MB", unit: "s", measure: catchUpMillion, long: true},
	}
}

func (h *host) put(path string) error {
	_, err := h.client.KV.Put(context.Background(), connect.NewRequest(&apiv1.PutRequest{Path: path, Value: make([]byte, 100)}))
	return err
}

func apiRate(clients int) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		hosts, stop, err := processes(dir, 3)
		defer stop()
		if err != nil {
			return 0, "", err
		}
		rate, err := loadRate(clients, hosts[0].put)
		if err != nil {
			return 0, "", err
		}
		settled := time.Now()
		err = wait(func() error { return equalHosts(hosts) })
		return rate, fmt.Sprintf("all equal %s later", time.Since(settled).Round(time.Millisecond)), err
	}
}

// loadRate has clients put, each as fast as it can, and gives puts per second.
func loadRate(clients int, put func(path string) error) (float64, error) {
	each := max(scaled(400*min(max(clients, 10), 60))/clients, 1)
	var group sync.WaitGroup
	errs := make([]error, clients)
	began := time.Now()
	for c := range clients {
		group.Go(func() {
			for i := range each {
				if errs[c] = put(fmt.Sprintf("/put/%d/%d", c, i)); errs[c] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	return float64(clients*each) / time.Since(began).Seconds(), errors.Join(errs...)
}

// apiLatency is from the call of a put on one agent until a watch of another has told of it.
func apiLatency(dir string) (float64, string, error) {
	hosts, stop, err := processes(dir, 3)
	defer stop()
	if err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := hosts[1].client.KV.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/p"}}))
	if err != nil {
		return 0, "", err
	}
	seen, ended := make(chan time.Time, 1), make(chan error, 1)
	go func() {
		for stream.Receive() {
			for _, e := range stream.Msg().Events {
				if e.Entry != nil && e.Entry.Path != "" {
					seen <- time.Now()
				}
			}
		}
		ended <- errors.Join(stream.Err(), errors.New("the watch ended"))
	}()
	return delays(seen, ended, func(i int) error { return hosts[0].put("/p/" + strconv.Itoa(i)) })
}

// delays puts 20 times a second and measures from the call until a watch tells.
func delays(seen <-chan time.Time, ended <-chan error, put func(i int) error) (float64, string, error) {
	time.Sleep(2 * time.Second) // links form, the watch stands
	all := make([]time.Duration, scaled(200))
	for i := range all {
		began := time.Now()
		if err := put(i); err != nil {
			return 0, "", err
		}
		select {
		case at := <-seen:
			all[i] = at.Sub(began)
		case err := <-ended:
			return 0, "", err
		case <-time.After(patience):
			return 0, "", errors.New("a watch does not tell of a put")
		}
		time.Sleep(time.Until(began.Add(50 * time.Millisecond)))
	}
	return percentiles(all), "", nil
}

// percentiles gives the median in seconds and leaves the 99th percentile in slow.
func percentiles(all []time.Duration) float64 {
	slices.Sort(all)
	slow = all[len(all)*99/100]
	return all[len(all)/2].Seconds()
}

// importKeys brings count keys into an agent, in batches.
func (h *host) importKeys(count int) error {
	const batch = 1000
	for i := 0; i < count; i += batch {
		req := &apiv1.BatchRequest{}
		for j := range min(batch, count-i) {
			path := fmt.Sprintf("/k/%d/%d", j%100, i+j)
			req.Ops = append(req.Ops, &apiv1.Op{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: path, Value: make([]byte, 100)}}})
		}
		if _, err := h.client.KV.Batch(context.Background(), connect.NewRequest(req)); err != nil {
			return err
		}
	}
	return nil
}

func memory(keys int) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		hosts, stop, err := processes(dir, 1)
		defer stop()
		if err != nil {
			return 0, "", err
		}
		if keys > 0 {
			if err := hosts[0].importKeys(scaled(keys)); err != nil {
				return 0, "", err
			}
		}
		time.Sleep(time.Duration(25 * *scale * float64(time.Second))) // it gives back what it needed
		idle, err := hosts[0].rss()
		if err != nil {
			return 0, "", err
		}
		most, err := hosts[0].memory("VmHWM:")
		return idle, fmt.Sprintf("%.0f MB at most while loading", most), err
	}
}

func restart(keys int) func(string) (float64, string, error) {
	return func(dir string) (float64, string, error) {
		hosts, stop, err := processes(dir, 1)
		defer stop()
		if err != nil {
			return 0, "", err
		}
		if err := hosts[0].importKeys(scaled(keys)); err != nil {
			return 0, "", err
		}
		hosts[0].kill()
		began := time.Now()
		if err := hosts[0].start(); err != nil {
			return 0, "", err
		}
		return time.Since(began).Seconds(), "", nil
	}
}

// catchUpMillion is from the admission of an empty agent until it shows what the other does.
func catchUpMillion(dir string) (float64, string, error) {
	hosts, stop, err := processes(dir, 2)
	defer stop()
	if err != nil {
		return 0, "", err
	}
	old, late := hosts[0], hosts[1]
	late.kill()
	if err := old.importKeys(scaled(1_000_000)); err != nil {
		return 0, "", err
	}
	began := time.Now()
	if err := late.start(); err != nil {
		return 0, "", err
	}
	if err := late.equalTo(old); err != nil {
		return 0, "", err
	}
	took := time.Since(began)
	most, err := late.memory("VmHWM:")
	if err != nil {
		return 0, "", err
	}
	mostOld, err := old.memory("VmHWM:")
	return took.Seconds(), fmt.Sprintf("from its start; at most %.0f MB, and %.0f MB on the side that gives", most, mostOld), err
}
