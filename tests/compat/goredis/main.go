// go-redis against a single node or a cluster: every family once, pipelines, transactions, scripts, pub/sub and blocking reads. Ends with
// a message and status 1 where something differs.
//
// goredis single|cluster ADDRESS [AUTHORITIES [CERTIFICATE KEY]]: by TLS, if files of authorities are named.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

func check(what string, good bool) {
	if !good {
		fmt.Fprintln(os.Stderr, "go-redis:", what)
		os.Exit(1)
	}
}

func must[T any](what string) func(value T, err error) T {
	return func(value T, err error) T {
		if err != nil {
			fmt.Fprintf(os.Stderr, "go-redis: %s: %v\n", what, err)
			os.Exit(1)
		}
		return value
	}
}

func families(ctx context.Context, client redis.UniversalClient) {
	check("SET", client.Set(ctx, "{k}text", "hello", time.Minute).Err() == nil)
	check("GET", must[string]("GET")(client.Get(ctx, "{k}text").Result()) == "hello")
	_, err := client.Get(ctx, "{k}none").Result()
	check("a missing key is Nil", errors.Is(err, redis.Nil))
	check("TTL", must[time.Duration]("TTL")(client.TTL(ctx, "{k}text").Result()) > 50*time.Second)
	check("INCRBYFLOAT", must[float64]("INCRBYFLOAT")(client.IncrByFloat(ctx, "{k}number", 1.5).Result()) == 1.5)
	check("SETBIT", must[int64]("SETBIT")(client.SetBit(ctx, "{k}bits", 7, 1).Result()) == 0)
	check("BITCOUNT", must[int64]("BITCOUNT")(client.BitCount(ctx, "{k}bits", nil).Result()) == 1)
	check("PFADD", must[int64]("PFADD")(client.PFAdd(ctx, "{k}seen", "a", "b").Result()) == 1)
	check("PFCOUNT", must[int64]("PFCOUNT")(client.PFCount(ctx, "{k}seen").Result()) == 2)
	check("HSET", must[int64]("HSET")(client.HSet(ctx, "{k}hash", "a", 1, "b", "two").Result()) == 2)
	check("HGETALL", must[map[string]string]("HGETALL")(client.HGetAll(ctx, "{k}hash").Result())["b"] == "two")
	check("HEXPIRE", must[[]int64]("HEXPIRE")(client.HExpire(ctx, "{k}hash", time.Minute, "a", "none").Result())[0] == 1)
	check("RPUSH", must[int64]("RPUSH")(client.RPush(ctx, "{k}list", "a", "b", "c").Result()) == 3)
	check("LRANGE", len(must[[]string]("LRANGE")(client.LRange(ctx, "{k}list", 0, -1).Result())) == 3)
	check("SADD", must[int64]("SADD")(client.SAdd(ctx, "{k}set", "a", "b").Result()) == 2)
	check("SINTER", len(must[[]string]("SINTER")(client.SInter(ctx, "{k}set", "{k}set").Result())) == 2)
	check("ZADD", must[int64]("ZADD")(client.ZAdd(ctx, "{k}scores", redis.Z{Score: 1.5, Member: "a"}, redis.Z{Score: 2, Member: "b"}).Result()) == 2)
	scores := must[[]redis.Z]("ZRANGE")(client.ZRangeWithScores(ctx, "{k}scores", 0, -1).Result())
	check("ZRANGE WITHSCORES", len(scores) == 2 && scores[0].Score == 1.5 && scores[1].Member == "b")
	check("GEOADD", must[int64]("GEOADD")(client.GeoAdd(ctx, "{k}places", &redis.GeoLocation{Name: "Palermo", Longitude: 13.361389, Latitude: 38.115556}).Result()) == 1)
	check("GEOPOS", len(must[[]*redis.GeoPos]("GEOPOS")(client.GeoPos(ctx, "{k}places", "Palermo").Result())) == 1)
	id := must[string]("XADD")(client.XAdd(ctx, &redis.XAddArgs{Stream: "{k}stream", Values: map[string]any{"f": "v"}}).Result())
	check("XGROUP", client.XGroupCreate(ctx, "{k}stream", "g", "0").Err() == nil)
	read := must[[]redis.XStream]("XREADGROUP")(client.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "g", Consumer: "c", Streams: []string{"{k}stream", ">"}, Count: 1}).Result())
	check("XREADGROUP", len(read) == 1 && read[0].Messages[0].ID == id)
	check("XACK", must[int64]("XACK")(client.XAck(ctx, "{k}stream", "g", id).Result()) == 1)
	script := redis.NewScript("return redis.call('incrby', KEYS[1], ARGV[1])")
	check("EVALSHA, then EVAL", must[int]("script")(script.Run(ctx, client, []string{"{k}counter"}, 5).Int()) == 5)
	check("EVALSHA", must[int]("script")(script.Run(ctx, client, []string{"{k}counter"}, 5).Int()) == 10)
	watched := client.Watch(ctx, func(tx *redis.Tx) error {
		_, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
			pipe.Incr(ctx, "{k}counter")
			pipe.Del(ctx, "{k}list")
			return nil
		})
		return err
	}, "{k}counter")
	check("WATCH, MULTI, EXEC", watched == nil)
	lost := client.Watch(ctx, func(tx *redis.Tx) error {
		client.Incr(ctx, "{k}counter")
		_, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error { pipe.Del(ctx, "{k}counter"); return nil })
		return err
	}, "{k}counter")
	check("a watched key that changed ends EXEC", errors.Is(lost, redis.TxFailedErr))
	go func() {
		time.Sleep(50 * time.Millisecond)
		client.LPush(ctx, "{k}queue", "job")
	}()
	job := must[[]string]("BLPOP")(client.BLPop(ctx, 10*time.Second, "{k}queue").Result())
	check("BLPOP", len(job) == 2 && job[1] == "job")
	subscription := client.Subscribe(ctx, "news")
	must[any]("SUBSCRIBE")(subscription.Receive(ctx))
	client.Publish(ctx, "news", "hello")
	message := must[*redis.Message]("a message")(subscription.ReceiveMessage(ctx))
	check("PUBLISH", message.Payload == "hello")
	subscription.Close()
}

// nil: in the clear.
func encryption(files []string) *tls.Config {
	if len(files) == 0 {
		return nil
	}
	authorities := x509.NewCertPool()
	check("authorities", authorities.AppendCertsFromPEM(must[[]byte]("authorities")(os.ReadFile(files[0]))))
	config := &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}
	if len(files) > 2 {
		config.Certificates = []tls.Certificate{must[tls.Certificate]("a certificate")(tls.LoadX509KeyPair(files[1], files[2]))}
	}
	return config
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mode, address := os.Args[1], os.Args[2]
	config := encryption(os.Args[3:])
	for _, protocol := range []int{2, 3} {
		var client redis.UniversalClient
		if mode == "cluster" {
			client = redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{address}, Protocol: protocol, TLSConfig: config})
		} else {
			client = redis.NewClient(&redis.Options{Addr: address, Protocol: protocol, ClientName: "go-redis", TLSConfig: config})
		}
		if cluster, is := client.(*redis.ClusterClient); is {
			check("FLUSHDB", cluster.ForEachMaster(ctx, func(ctx context.Context, one *redis.Client) error { return one.FlushDB(ctx).Err() }) == nil)
		} else {
			check("FLUSHDB", client.FlushDB(ctx).Err() == nil)
		}
		families(ctx, client)
		pipe := client.Pipeline()
		for number := range 2000 {
			pipe.Set(ctx, "key:"+strconv.Itoa(number), number, 0)
		}
		must[[]redis.Cmder]("a pipeline over all slots")(pipe.Exec(ctx))
		for number := range 2000 {
			check("what a pipeline wrote", must[int]("GET")(client.Get(ctx, "key:"+strconv.Itoa(number)).Int()) == number)
		}
		client.Close()
	}
}
