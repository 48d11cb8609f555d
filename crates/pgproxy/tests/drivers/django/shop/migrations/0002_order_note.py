from django.db import migrations, models


class Migration(migrations.Migration):
    # An index that is made concurrently cannot be made in a transaction block.
    atomic = False
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.AddField("order", "note", models.TextField(default="")),
        migrations.RunSQL(
            "create index concurrently shop_order_amount on shop_order (amount)", "drop index concurrently shop_order_amount"
        ),
    ]
