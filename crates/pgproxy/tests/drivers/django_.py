"""The Django ORM: migrations, transactions and savepoints, locks, iterators that are cursors at the server."""

import os
import sys
from urllib.parse import unquote, urlsplit

from common import run, url

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "django"))

import django
from django.conf import settings

parts = urlsplit(url)
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path.lstrip("/"),
            "USER": parts.username,
            "PASSWORD": unquote(parts.password),
            "HOST": parts.hostname,
            "PORT": parts.port,
            "CONN_MAX_AGE": None,
            "CONN_HEALTH_CHECKS": True,
        }
    },
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "shop"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, F, Sum
from shop.models import Customer, Order


def migrations():
    call_command("migrate", verbosity=0)
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
    call_command("migrate", "shop", "0001", verbosity=0)
    call_command("migrate", "shop", verbosity=0)


def queries():
    customers = Customer.objects.bulk_create(Customer(name=f"customer {n}") for n in range(100))
    Order.objects.bulk_create(Order(customer=customers[n % 100], amount=n) for n in range(1_000))
    assert Order.objects.aggregate(sum=Sum("amount"))["sum"] == 499_500
    assert Customer.objects.annotate(orders=Count("order")).filter(orders=10).count() == 100
    assert Order.objects.filter(amount__lt=10).update(amount=F("amount") + 1) == 10
    customer, made = Customer.objects.get_or_create(name="customer 5")
    assert not made and customer.order_set.count() == 10
    assert Order.objects.select_related("customer").get(pk=Order.objects.earliest("pk").pk).customer.name == "customer 0"


def transactions_and_savepoints():
    with transaction.atomic():
        Customer.objects.create(name="outer")
        try:
            with transaction.atomic():
                Customer.objects.create(name="outer")
        except IntegrityError:
            pass
        Customer.objects.create(name="after")
    assert Customer.objects.filter(name__in=["outer", "after"]).count() == 2
    try:
        with transaction.atomic():
            Customer.objects.create(name="never")
            raise KeyError
    except KeyError:
        pass
    assert not Customer.objects.filter(name="never").exists()
    done = []
    with transaction.atomic():
        transaction.on_commit(lambda: done.append(True))
        locked = Customer.objects.select_for_update().get(name="outer")
        locked.name = "renamed"
        locked.save()
    assert done and Customer.objects.filter(name="renamed").exists()


def iterators():
    # Outside of a transaction block Django declares it with hold.
    assert sum(order.amount for order in Order.objects.iterator(chunk_size=100)) == 499_510
    with transaction.atomic():
        assert sum(1 for _ in Order.objects.iterator(chunk_size=100)) == 1_000


def raw_sql():
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from shop_order where amount > %s", [500])
        assert cursor.fetchone() == (499,), cursor.fetchone()
    assert connection.introspection.table_names()
    connection.close()
    assert Order.objects.count() == 1_000


def back_to_nothing():
    call_command("flush", interactive=False, verbosity=0)
    assert Order.objects.count() == 0
    call_command("migrate", "shop", "zero", verbosity=0)


def write(acknowledge):
    def one(n):
        with connection.cursor() as cursor:
            cursor.execute("insert into written values (%s)", [n])

    while acknowledge(one):
        pass


run(sys.argv, [migrations, queries, transactions_and_savepoints, iterators, raw_sql, back_to_nothing], write)
