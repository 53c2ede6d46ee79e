use super::*;

const LONGEST: Duration = Duration::from_secs(5);

fn task(egg: &str, node: usize) -> (Task, Line) {
    (Task::Assignment(ObjectKey::new("shop", format!("{egg}.n{node}"))), Some(EggKey::egg("shop", egg)))
}

fn push(queue: &mut Queue, (task, line): (Task, Line)) {
    queue.push(task, line, false);
}

#[test]
fn eggs_take_turns() {
    let mut queue = Queue::default();
    let now = Instant::now();
    for node in 0..1_000 {
        push(&mut queue, task("large", node));
    }
    push(&mut queue, task("small", 0));
    let first: Vec<_> = (0..3).filter_map(|_| queue.pop(now)).collect();
    assert_eq!(first, [task("large", 0).0, task("small", 0).0, task("large", 1).0]);
}

#[test]
fn namespaces_take_turns_whatever_their_number_of_eggs() {
    let mut queue = Queue::default();
    let now = Instant::now();
    let of = |namespace: &str, egg: usize| {
        let egg = EggKey::egg(namespace, format!("e{egg}"));
        (Task::Status(egg.clone()), Some(egg))
    };
    for number in 0..1_000 {
        push(&mut queue, of("greedy", number));
    }
    let cluster = EggKey::cluster("all");
    for number in 0..3 {
        push(&mut queue, of("modest", number));
        let assignment = ObjectKey::new(cluster.assignment_namespace(), format!("all.n{number}"));
        push(&mut queue, (Task::Assignment(assignment), Some(cluster.clone())));
    }
    let popped: Vec<_> = std::iter::from_fn(|| queue.pop(now)).collect();
    let place = |task: &Task| popped.iter().position(|popped| popped == task).unwrap();
    assert_eq!([0, 1, 2].map(|number| place(&of("modest", number).0)), [1, 4, 7]);
    assert_eq!(popped.len(), 1_006);
}

#[test]
fn a_task_is_there_once_and_again_if_there_was_news() {
    let mut queue = Queue::default();
    let now = Instant::now();
    let (one, _) = task("a", 0);
    push(&mut queue, task("a", 0));
    push(&mut queue, task("a", 0));
    assert_eq!(queue.pop(now), Some(one.clone()));
    assert_eq!(queue.pop(now), None);
    push(&mut queue, task("a", 0));
    assert_eq!(queue.pop(now), None, "not twice at a time");
    queue.done(&one);
    assert_eq!(queue.pop(now), Some(one.clone()));
    queue.done(&one);
    assert_eq!(queue.pop(now), None);
    assert!(queue.is_empty());
}

#[test]
fn failures_wait_longer_and_longer_and_hold_up_nobody() {
    let mut queue = Queue::default();
    let mut now = Instant::now();
    let (bad, line) = task("bad", 0);
    queue.push(bad.clone(), line.clone(), false);
    let mut pauses = Vec::new();
    for failures in 1..9 {
        assert_eq!(queue.pop(now), Some(bad.clone()));
        assert_eq!(queue.failed(&bad, now, LONGEST, Why::Refused), failures);
        push(&mut queue, task("good", 0));
        assert_eq!(queue.pop(now), Some(task("good", 0).0));
        queue.done(&task("good", 0).0);
        push(&mut queue, task("bad", 0));
        assert_eq!(queue.pop(now), None, "news of what was observed do not hasten it");
        let due = queue.next_due().unwrap();
        pauses.push((due - now).as_millis());
        now = due;
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    // An edit does.
    queue.push(bad.clone(), line, true);
    assert_eq!(queue.pop(now), Some(bad.clone()));
    assert_eq!(queue.failed(&bad, now, LONGEST, Why::Refused), 1);
}

#[test]
fn an_edit_during_a_write_that_fails_is_tried_at_once() {
    let mut queue = Queue::default();
    let now = Instant::now();
    let (one, line) = task("a", 0);
    queue.push(one.clone(), line.clone(), false);
    queue.pop(now);
    queue.push(one.clone(), line, true);
    queue.failed(&one, now, LONGEST, Why::Refused);
    assert_eq!(queue.pop(now), Some(one));
}

#[test]
fn a_postponed_task_comes_when_it_is_due() {
    let mut queue = Queue::default();
    let now = Instant::now();
    let (one, _) = task("a", 0);
    push(&mut queue, task("a", 0));
    queue.pop(now);
    let due = now + Duration::from_millis(100);
    queue.postpone(&one, due, Why::Pace);
    assert_eq!(queue.pop(now), None);
    assert_eq!(queue.next_due(), Some(due));
    assert_eq!(queue.pop(due), Some(one));
}

#[test]
fn a_status_goes_before_its_assignments() {
    let mut queue = Queue::default();
    push(&mut queue, task("a", 0));
    push(&mut queue, task("a", 1));
    let status = Task::Status(EggKey::egg("shop", "a"));
    queue.push(status.clone(), Some(EggKey::egg("shop", "a")), false);
    assert_eq!(queue.pop(Instant::now()), Some(status));
}

#[test]
fn what_can_be_another_matter_is_hastened_by_an_edit_and_nothing_else() {
    for (why, is_hastened) in
        [(Why::Refused, true), (Why::HasTime, true), (Why::Busy, false), (Why::Pace, false)]
    {
        let mut queue = Queue::default();
        let now = Instant::now();
        let (one, line) = task("a", 0);
        push(&mut queue, task("a", 0));
        queue.pop(now);
        queue.postpone(&one, now + LONGEST, why);
        queue.push(one.clone(), line, true);
        assert_eq!(queue.pop(now).is_some(), is_hastened, "{why:?}");
    }
}

#[test]
fn an_edit_during_a_write_that_an_overloaded_api_server_refuses_waits() {
    let mut queue = Queue::default();
    let now = Instant::now();
    let (one, line) = task("a", 0);
    push(&mut queue, task("a", 0));
    queue.pop(now);
    queue.push(one.clone(), line, true);
    assert_eq!(queue.failed(&one, now, LONGEST, Why::Busy), 1);
    assert_eq!(queue.pop(now), None);
    assert_eq!(queue.next_due(), Some(now + FIRST_PAUSE));
}
